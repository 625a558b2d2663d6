"""Media are opened in a child process that can be killed."""
