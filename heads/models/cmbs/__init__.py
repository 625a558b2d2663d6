"""The head `cmbs`."""
