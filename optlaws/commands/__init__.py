"""What the commands do, once the command line is parsed; all but the options are imported only when one runs."""
