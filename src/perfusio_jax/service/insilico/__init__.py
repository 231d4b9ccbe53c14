"""In-silico campaigns: clones, designs, policies and seeds, kept part by part."""
