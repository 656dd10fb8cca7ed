"""One module a group of commands: signatures and help, everything else is imported when a command runs."""
