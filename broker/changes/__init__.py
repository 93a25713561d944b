"""The policy that is kept in the store and set through the admin API."""
