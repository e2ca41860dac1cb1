"""The shipped model, its card, and the code that trains and evaluates it."""
