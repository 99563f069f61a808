"""TFX's Trainer with the plateau schedule as parameters and the training history as an output."""
