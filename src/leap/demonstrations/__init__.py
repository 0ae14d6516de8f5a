"""Where demonstrations come from: an environment's tutor, a language model, a file, or nowhere."""
