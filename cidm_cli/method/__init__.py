"""The paper's mathematics: pure torch on the tensors it is given. Symbols are method.md's and the paper's."""
