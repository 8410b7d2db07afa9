"""What the kernel offers: constants by header, /proc, signals."""
