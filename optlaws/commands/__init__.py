"""What the commands do, once the command line is parsed; imported only when a command runs."""
