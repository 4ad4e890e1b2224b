"""Block devices that are made of others: encrypted, of a volume group, of an array, verified."""
