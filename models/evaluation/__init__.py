"""What the shipped model is worth on recordings that it never learnt from."""
