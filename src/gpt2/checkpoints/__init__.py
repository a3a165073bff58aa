"""Which files a model is, where models lie; readers and writers of each format; the downloader's rules."""
