"""Training: data -> model -> fit -> record -> publish."""
