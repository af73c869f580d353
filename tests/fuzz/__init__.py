"""`make fuzz`: what reads what others wrote, fed with anything, for as long as is wanted."""
