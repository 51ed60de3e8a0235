"""Reference forms: slow and plain, written from the papers, for the product to be compared with."""
