"""A warehouse: bags, and the places where each was scanned."""
from sqlalchemy import Column, DateTime, ForeignKey, String, func, select
from sqlalchemy.dialects.postgresql import UUID, insert
from sqlalchemy.orm import declarative_base, relationship

Base = declarative_base()


class Bag(Base):
    __tablename__ = "bag"
    id = Column(UUID(as_uuid=True), primary_key=True)
    label = Column(String, nullable=False)
    scans = relationship("Scan", order_by="Scan.time", lazy="selectin")


class Scan(Base):
    __tablename__ = "scan"
    id = Column(UUID(as_uuid=True), primary_key=True)
    bag_id = Column(ForeignKey("bag.id"), nullable=False, index=True)
    place = Column(String, nullable=False)
    time = Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


def add(row):
    """Work for Databases.write. Whoever sends the request chose the id, so that the same twice is one row."""
    kind = type(row)
    values = {column.name: value for column in kind.__table__.columns
              if (value := getattr(row, column.name)) is not None}
    return lambda session: session.execute(insert(kind).values(values).on_conflict_do_nothing(index_elements=["id"]))


def bag(bag_id):
    """Work for Databases.read: the bag with its scans, None if there is none."""
    return lambda session: session.scalar(select(Bag).where(Bag.id == bag_id))
