"""A whole service in one file. Run it, or serve it: ``wireproto serve examples.calculator:handlers``."""

from wireproto import Context, Handlers, Message, Method, Server, Service, connect


class AddRequest(Message):
    left: int
    right: int


class AddResponse(Message):
    total: int


ADD = Method(opcode=0x10, name="Add", request=AddRequest, response=AddResponse, since=1)
CALCULATOR = Service("example.v1.CalculatorService", version=1, methods=[ADD])

handlers = Handlers(CALCULATOR)


@handlers.register(ADD)
def add(request: AddRequest, context: Context) -> AddResponse:
    return AddResponse(total=request.left + request.right)


if __name__ == "__main__":
    with Server(handlers, port=0) as server, connect(server.address, CALCULATOR, codec="protobuf") as client:
        print(client.call(ADD, AddRequest(left=2, right=3)).total)  # typed: the checker knows it is AddResponse
