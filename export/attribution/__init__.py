"""What each pixel, and each unit of a stage, contributes to a score.

The networks are chains of Flatten, Linear and ReLU, so that a score is piecewise affine in the
image: its contributions are computed without a numerical approximation.
"""
