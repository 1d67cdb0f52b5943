"""What runs networks: checkpoints, inference, devices, images."""
