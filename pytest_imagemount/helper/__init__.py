"""The process that owns every kernel object: it undoes them all when its test process is gone, however that ended."""
