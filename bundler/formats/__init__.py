"""File formats that bundler reads and writes: images, tar archives, volumes, untrusted text."""
