"""What is measured: one module a question. :mod:`.section` says what each of them gives."""
