"""Before the tests: which of them are measured, with which budgets, models and loads."""
