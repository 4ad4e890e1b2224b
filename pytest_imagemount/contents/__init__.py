"""Facts of an installed system, read from its files: nothing of the image is executed.

Each reader takes the root of an image, an :class:`~pytest_imagemount.image_path.ImagePath`, so that every link of the
image is followed inside the image. What an image holds may be hostile: files are read up to a bound, what is no regular
file is an error at once, and text that is not UTF-8 is kept readable.
"""
