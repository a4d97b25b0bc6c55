"""A run of the suite as a report: JSON with everything, JUnit for machines, a page for people.

``run`` runs pytest and puts together, ``page`` renders from the JSON alone. Only the page needs
libraries of its own (the extra ``report``), so a machine with torch and pytest writes the JSON and
another one makes the page.
"""
