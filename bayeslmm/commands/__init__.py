"""What the command line's commands do, once their options are read."""
