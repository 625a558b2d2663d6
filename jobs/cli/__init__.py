"""What every verb uses: the command line, the console, shared options."""
