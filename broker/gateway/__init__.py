"""The data plane: a task token comes in with a request, the real credential goes out with it."""
