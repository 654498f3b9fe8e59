"""How many of MNIST's digits the client reads in pictures of many forms."""
