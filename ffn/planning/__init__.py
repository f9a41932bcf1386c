"""What inference on a volume takes: work, speed, memory, files, and how large its parts should be."""
