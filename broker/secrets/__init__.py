"""Secret backends: where long-lived keys are kept."""
