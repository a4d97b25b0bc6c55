"""The suite tests itself: comparators reject, mutants are caught."""
