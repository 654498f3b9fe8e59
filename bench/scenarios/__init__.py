"""What is measured, one scenario each."""
