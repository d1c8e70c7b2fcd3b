"""A service whose streams are topics: one leaves out the oldest items, one ends the slow, one can be come back to."""

from wireproto import Context, Handlers, Message, Service, StreamMethod, Subscription, Topic


class ListenRequest(Message):
    pass


class News(Message):
    number: int
    text: str = ""


TICKS = StreamMethod(opcode=1, name="Ticks", request=ListenRequest, response=News, slow="drop_oldest")
ALERTS = StreamMethod(opcode=2, name="Alerts", request=ListenRequest, response=News, slow="end")
PAPER = StreamMethod(
    opcode=3, name="Paper", request=ListenRequest, response=News, slow="drop_oldest", resumable="number"
)
NEWSROOM = Service("test.v1.NewsroomService", methods=[TICKS, ALERTS, PAPER])


class Newsroom:
    """The topics, and the handlers that subscribe to them."""

    def __init__(self, keep: int = 8) -> None:
        self.ticks = Topic(TICKS, keep=keep)
        self.alerts = Topic(ALERTS, keep=keep)
        self.paper = Topic(PAPER, keep=keep)
        self.handlers = handlers = Handlers(NEWSROOM)

        @handlers.register(TICKS)
        def ticks(request: ListenRequest, context: Context) -> Subscription[News]:
            return self.ticks.subscribe(context)

        @handlers.register(ALERTS)
        def alerts(request: ListenRequest, context: Context) -> Subscription[News]:
            return self.alerts.subscribe(context)

        @handlers.register(PAPER)
        def paper(request: ListenRequest, context: Context) -> Subscription[News]:
            return self.paper.subscribe(context)


def publish(topic: Topic[News], first: int, last: int, size: int = 0) -> None:
    """Items with these numbers, both of them included."""
    for number in range(first, last + 1):
        topic.publish(News(number=number, text="x" * size))
