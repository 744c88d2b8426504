"""Lists that a test can change, and whose responses it can hold back, while the server runs."""

import threading


class Lists:
    """The lists by method: the name of the member in the result, and the pages."""

    def __init__(self, whole, gate):
        self.pages = {method: (name, [items]) for method, (name, items) in whole.items()}
        self.gate = gate
        self.held = {}

    def __contains__(self, method):
        return method in self.pages

    def change(self, method, pages):
        self.pages[method] = (self.pages[method][0], pages)

    def hold(self, method, gate):
        """Holds responses until the gate of that name is open; earlier requests are not affected."""
        self.held[method] = gate

    def answer(self, method, params, tell):
        """Answers with the page of the cursor. A held response has the content at the time of its request."""
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
