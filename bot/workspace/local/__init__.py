"""The local JSON API: what a person does and sees, for the page and for scripts."""
