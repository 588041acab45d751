"""The commands of `nebula`, by what they are about. `cli/main.py` lists them."""
