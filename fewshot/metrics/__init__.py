"""Metrics as pure functions of tensors; a leading `*E` means that every episode is scored on its own."""
