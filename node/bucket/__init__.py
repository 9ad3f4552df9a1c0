"""The bucket: keys, records and the conditional-write store. What controller and node both speak; imports neither."""
