"""What goes in: models, pictures, preprocessing, samples."""
