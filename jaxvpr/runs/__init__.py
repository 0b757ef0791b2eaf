"""What a run leaves behind: its folder, its model, its databases, and which weights a verb takes of them."""
