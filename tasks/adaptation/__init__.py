"""What RiFT is made of: how critical each module is, which lie on a shortcut, and fine-tuning one of them."""
