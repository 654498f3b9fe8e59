"""Training: data -> model -> trainer -> results -> publish."""
