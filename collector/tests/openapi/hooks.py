# How schemathesis sends the body of a batch.
import schemathesis


@schemathesis.serializer("application/x-protobuf")
def protobuf(context, value):
    return value if isinstance(value, bytes) else str(value).encode()
