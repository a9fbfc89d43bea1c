"""Small things that every room uses: configuration values, files, clocks."""
