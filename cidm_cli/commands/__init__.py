"""One file per verb: options in, a printed result out. Everything heavy is imported inside the function."""
