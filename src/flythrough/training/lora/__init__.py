"""``flythrough train lora``: a camera adapter from one clip, or from a short list of clips."""
