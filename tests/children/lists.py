"""Lists that a test can change while their server runs, and whose answers it can hold back."""

import threading


class Lists:
    """By method: the name of its member, and its pages."""

    def __init__(self, whole, gate):
        self.pages = {method: (name, [items]) for method, (name, items) in whole.items()}
        self.gate = gate
        self.held = {}

    def __contains__(self, method):
        return method in self.pages

    def change(self, method, pages):
        self.pages[method] = (self.pages[method][0], pages)

    def hold(self, method, gate):
        """Answers no more until the gate of that name is open; what was asked before is not held."""
        self.held[method] = gate

    def answer(self, method, params, tell):
        """Tells the page that the cursor names. What is held is told as it was when it was asked for."""
        name, pages = self.pages[method]
        cursor = params.get("cursor", "")
        at = int(cursor) if cursor.isdigit() else 0
        page = {name: pages[at]} | ({"nextCursor": str(at + 1)} if at + 1 < len(pages) else {})
        held = self.held.get(method)
        if held is None:
            return tell(page)

        def wait():
            self.gate(held).wait()
            tell(page)

        threading.Thread(target=wait, daemon=True).start()
