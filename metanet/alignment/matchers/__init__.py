"""One file for each matcher; a file added here registers itself: nothing lists them."""
