"""What everything else stands on: arguments, arrays, files, the compiled kernels, Ctrl-C."""
