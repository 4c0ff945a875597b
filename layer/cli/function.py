"""The configuration of a function, and the update of it. For the scripts in this folder."""

import json, re, sys

# The ARN of a version of the layer.
is_ours = re.compile(r":layer:tailor-extension(-x86_64|-arm64)?:\d+$").search


def stop(why):
    sys.exit(f"error: {why}; nothing was changed")


class Function:
    """The function whose configuration is in FOLDER/function.json."""

    def __init__(self, folder):
        self.folder = folder
        with open(f"{folder}/function.json") as file:
            self.configuration = json.load(file)
        self.name = self.configuration["FunctionName"]
        self.attached = [entry["Arn"] for entry in self.configuration.get("Layers") or []]
        self.other_layers = [arn for arn in self.attached if not is_ours(arn)]

    def variables(self):
        """An update replaces all variables, so they must be known. Those that a customer-managed key encrypts are left out of
        the answer for a caller who may not decrypt them."""
        environment = self.configuration.get("Environment", {"Variables": {}})
        if "Error" in environment or "Variables" not in environment:
            reason = environment.get("Error", {}).get("Message", "Lambda does not show them")
            stop(f"the variables of {self.name} cannot be read and would be lost: {reason.rstrip('.')}")
        return environment["Variables"]

    def update(self, layers, variables):
        """Writes the request to FOLDER/request.json, unless the function is so already."""
        if layers == self.attached and variables == self.variables():
            return
        # With the revision that was read, so that a change by others in between is refused, not overwritten.
        request = {"FunctionName": self.configuration["FunctionArn"], "RevisionId": self.configuration["RevisionId"],
                   "Layers": layers, "Environment": {"Variables": variables}}
        with open(f"{self.folder}/request.json", "w") as file:
            json.dump(request, file)
